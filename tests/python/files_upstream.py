"""An OpenAI and an Azure that keep files and batches. Prints the port.

What is not as the API wants it is a 400 that says why. Each account has files of its own, known by its key.
"""

import email.parser
import email.policy
import http.server
import json
import re

KEYS = {"authorization": "Bearer openai-key", "api-key": "azure-key"}
FIELDS = {"purpose", "file", "expires_after[anchor]", "expires_after[seconds]"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files = {name: {} for name in KEYS}

    def log_message(self, *_):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        path, _, query = self.path.partition("?")
        openai = re.fullmatch(r"/v1/(files|batches)(?:/([^/]+))?(?:/(content|cancel))?", path)
        azure = re.fullmatch(r"/openai/(files|batches)(?:/([^/]+))?(?:/(content|cancel))?", path)
        name = "authorization" if openai else "api-key"
        if not (openai or azure and "api-version=2025-04-01-preview" in query):
            return self.refuse(f"the address {self.path}")
        if self.headers[name] != KEYS[name] or "custom_llm_provider" in query:
            return self.refuse("the key or the query")
        kind, identifier, action = (openai or azure).groups()
        answer = getattr(self, f"{self.command.lower()}_{kind}")(self.files[name], identifier, action, body)
        if isinstance(answer, bytes):
            self.send(200, "application/octet-stream", answer)
        elif answer is not None:
            self.send(200, "application/json", json.dumps(answer).encode())

    do_GET = do_POST = do_DELETE = handle_any

    def refuse(self, message, status=400):
        error = {"message": f"upstream: {message}", "type": "invalid_request_error", "param": None, "code": None}
        self.send(status, "application/json", json.dumps({"error": error}).encode())

    def send(self, status, kind, data):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def post_files(self, files, identifier, action, body):
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        if not {"purpose", "file"} <= parts.keys() <= FIELDS:
            return self.refuse(f"the fields {list(parts)}")
        file = parts["file"]
        content = file.get_payload(decode=True)
        identifier = f"file-{len(files) + 1}"
        described = {"id": identifier, "object": "file", "bytes": len(content), "created_at": 1, "status": "processed",
                     "filename": file.get_filename(), "purpose": parts["purpose"].get_payload()}
        files[identifier] = (described, content)
        return described

    def get_files(self, files, identifier, action, _):
        if identifier is None:
            return {"object": "list", "data": [described for described, _ in files.values()], "has_more": False}
        if identifier not in files:
            return self.refuse(f"no file {identifier}", 404)
        return files[identifier][1 if action == "content" else 0]

    def delete_files(self, files, identifier, action, _):
        if files.pop(identifier, None) is None:
            return self.refuse(f"no file {identifier}", 404)
        return {"id": identifier, "object": "file", "deleted": True}

    def post_batches(self, files, identifier, action, body):
        if action == "cancel":
            return self.batch(identifier, "cancelling")
        wanted = json.loads(body)
        if wanted.keys() != {"input_file_id", "endpoint", "completion_window"} or wanted["input_file_id"] not in files:
            return self.refuse(f"the batch {wanted}")
        return self.batch("batch-1", "validating")

    def get_batches(self, files, identifier, action, _):
        one = self.batch(identifier or "batch-1", "completed")
        return one if identifier else {"object": "list", "data": [one], "has_more": False}

    def batch(self, identifier, status):
        return {"id": identifier, "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1",
                "completion_window": "24h", "status": status, "created_at": 1}


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
