"""The runner as a process: progress that can be seen, a stall that ends, threads and memory that the container can afford."""
