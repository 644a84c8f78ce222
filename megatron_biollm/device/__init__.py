"""The only room that names CUDA."""
