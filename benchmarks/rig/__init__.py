"""What `benchmarks/ingest.py` is made of: photographs, a web server, a meter, the two sides, and the limit."""
