"""A package, so that worker processes can import the functions that a test sends them."""
