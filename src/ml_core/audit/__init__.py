"""What is wrong with a data set: every patch is measured once, then checks look at the table."""
