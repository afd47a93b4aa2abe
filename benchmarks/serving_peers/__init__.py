"""What the serving benchmark holds a bundle against, as services of their own."""
