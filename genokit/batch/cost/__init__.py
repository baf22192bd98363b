"""What jobs will cost, and what they have cost."""
