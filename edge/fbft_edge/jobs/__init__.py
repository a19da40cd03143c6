"""What is done beside a line: files inspected, recordings replayed, demo, bench, doctor, configurations checked."""
