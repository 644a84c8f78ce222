"""A dataset and a loss for each way of tuning a pretrained model."""
