"""What can go wrong, and what a program sees: the embedded server plays each fault on demand."""

import flowgpt
from flowgpt.embedded import Server

with Server() as server, flowgpt.Client(base_url=server.base_url, max_retries=0) as client:
    for fault in ("cut_mid_line", "credit", "html_page", "status:500", "challenge", "rate_limit:7"):
        try:
            client.chat.completions.create(
                messages=[{"role": "user", "content": "Is anybody there?"}], extra_body={"fault": fault}
            )
        except flowgpt.FlowGPTError as error:
            wait = f", retry after {error.retry_after_s:g} s" if error.retry_after_s else ""
            print(f"{fault}: {type(error).__name__} ({error.code}{wait}), {len(error.partial_text)} characters kept")
