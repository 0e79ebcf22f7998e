"""The verifier that stands on its own (headgate_verify/), and how it is made one file."""
