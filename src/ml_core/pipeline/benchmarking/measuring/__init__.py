"""What is measured, one subject per file; the costly ones in processes of their own."""
