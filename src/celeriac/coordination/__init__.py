"""What workers and clients share beside messages: claims with a lease, rate buckets. The port is `base`; drivers by URL."""
