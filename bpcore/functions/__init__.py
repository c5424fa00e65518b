"""The declarations: formulas, activations, losses, update rules and everything that goes with them."""
