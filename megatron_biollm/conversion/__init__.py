"""Hugging Face in and out, tensor by tensor, with logits compared before anything is kept."""
