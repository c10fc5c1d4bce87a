"""Many runs together: what was asked for, how it goes, what the runs tell."""
