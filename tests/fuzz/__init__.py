"""The parser of the api's HTTP server under a fuzzer and AddressSanitizer."""
