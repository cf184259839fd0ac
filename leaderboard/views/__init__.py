"""What pages show, as plain data: no HTML here, no numbers made in templates."""
