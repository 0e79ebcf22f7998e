"""The verifier that stands on its own, and nothing else: see headgate_verify.py."""
