"""What tests share: toy models, toy runs, toy sites, commands in a second process, a browser."""
