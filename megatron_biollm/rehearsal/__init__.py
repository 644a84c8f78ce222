"""Every rank of the real run, built and stepped on tensors without memory."""
