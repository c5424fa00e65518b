"""Training: the step as a value, plans that carry it out, and the loop around them."""
