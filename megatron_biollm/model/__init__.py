"""What the network is: sizes, layers, parameters. No degrees, no ranks."""
