"""Training and measuring one network: the loop, schedules, evaluation, the device."""
