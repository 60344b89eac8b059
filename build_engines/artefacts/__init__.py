"""What is published: versions on disk, found, checked, kept and collected."""
