"""Worked examples: models that go through Headgate from training to production."""
