"""Other frameworks: PyTorch Lightning."""
