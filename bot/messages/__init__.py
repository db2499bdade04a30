"""What people see: Block Kit from state. Pure; one module per card."""
