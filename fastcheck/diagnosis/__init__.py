"""From the error's shape to the likely slip: the table of slips, planting, finding and mending."""
