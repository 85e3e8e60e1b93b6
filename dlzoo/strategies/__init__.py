"""Ways of training on several devices that Lightning does not have in this form."""
