"""What crosses a service's border: the application, the decision, the events, the errors."""
