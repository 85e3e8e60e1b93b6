"""Plain-torch pieces that turn files into batches."""
