"""The app of the fault tests about messages, limits and fairness, and the bench that they work on."""
