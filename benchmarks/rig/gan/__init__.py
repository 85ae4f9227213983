"""What `benchmarks/gan.py` is made of."""
