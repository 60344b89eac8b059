"""What was used: by whom, of which model, and what it cost."""
