DROP TABLE operator_actions, stalled_orders, reconciliation_cases, reconciliation;
