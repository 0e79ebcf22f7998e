"""What runs in the sandbox while processes are killed: answers that the model carries with it, at no cost."""
