"""What need not be held on the device: optimizer states, weights, activations, the insides of an MLP."""
