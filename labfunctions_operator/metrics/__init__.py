"""What Prometheus is told: counts of what this process did, and gauges of what is there."""
