"""Which of many runs is the champion, by which rule, on what evidence."""
