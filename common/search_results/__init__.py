"""What a hyperparameter search leaves for people and programs: tables, pictures, the report and the best config."""
