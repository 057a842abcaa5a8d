"""What ours is compared with: the least code that does the job. No checks, no deadlines, no verdicts."""
