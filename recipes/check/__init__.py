"""What an option is asked, whoever wrote it: the checks of our own options and of those of packages; `recipes check` runs them."""
