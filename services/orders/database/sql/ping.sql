SELECT current_setting('transaction_read_only'), current_setting('synchronous_standby_names')
