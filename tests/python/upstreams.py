"""Upstreams of Anthropic's format, of OpenAI's, and of its Responses API alone, that are strict about theirs. Prints their
ports in this order.

A request with tools is answered by two calls of the first tool; one with their results by a text that repeats them. A text
`fail STATUS` is answered by that status. What is not as the format wants it is a 400 that says why.
"""

import http.server
import json
import threading

OURS = {"priority", "timeout"}


class Refused(Exception):
    def __init__(self, status, kind, message):
        super().__init__(message)
        self.status, self.kind = status, kind


def demand(condition, message):
    if not condition:
        raise Refused(400, "invalid_request_error", f"upstream: {message}")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        try:
            demand(not OURS & body.keys(), "a field of the gateway")
            answer = self.answer(body)
        except Refused as error:
            self.send(error.status, "application/json", json.dumps(self.error(error.kind, str(error))))
            return
        if isinstance(answer, list):
            self.send(200, "text/event-stream", "".join(answer))
        else:
            self.send(200, "application/json", json.dumps(answer))

    def send(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(data)


def fail(text, kinds):
    if text.startswith("fail "):
        status = int(text[5:])
        raise Refused(status, kinds.get(status, "api_error"), "as asked for")


class Claude(Handler):
    KINDS = {429: "rate_limit_error", 529: "overloaded_error", 403: "permission_error", 400: "invalid_request_error"}

    def error(self, kind, message):
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_upstream"}

    def answer(self, body):
        demand(self.headers["x-api-key"] == "upstream-key", "the key")
        demand(len(self.headers.get_all("anthropic-version", [])) == 1, "one version")
        demand(isinstance(body.get("model"), str), "the model")
        messages, calls, results = body["messages"], [], []
        if self.path == "/v1/messages/count_tokens":
            return {"input_tokens": 42}
        demand(self.path == "/v1/messages", f"the path {self.path}")
        demand(isinstance(body.get("max_tokens"), int), "max_tokens")
        demand(messages and messages[0]["role"] == "user", "the first turn")
        for before, message in zip([None] + messages, messages):
            demand(message["role"] in ("user", "assistant"), "a role")
            demand(before is None or before["role"] != message["role"], "the order of turns")
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            demand(blocks and all(block["type"] != "text" or block["text"] for block in blocks), "an empty text")
            found = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            demand(found == calls, f"results of {found} for {calls}")
            results = [block["content"] for block in blocks if block["type"] == "tool_result"] or results
            calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
            demand(all(isinstance(block["input"], dict) for block in blocks if block["type"] == "tool_use"), "inputs")
            if message["role"] == "user" and blocks[0]["type"] == "text":
                fail(blocks[0]["text"], self.KINDS)
        text = lambda result: result if isinstance(result, str) else result[0]["text"]
        if results:
            content = [{"type": "text", "text": "It is " + " and ".join(map(text, results))}]
        elif tools := body.get("tools"):
            demand(tools[0]["input_schema"]["type"] == "object", "the schema of a tool")
            content = [{"type": "text", "text": "I look."}]
            content += [
                {"type": "tool_use", "id": f"toolu_{city}", "name": tools[0]["name"], "input": {"city": city}}
                for city in ("Rome", "Oslo")
            ]
        else:
            system = body.get("system", "")
            system = system if isinstance(system, str) else "".join(block["text"] for block in system)
            content = [{"type": "text", "text": f"hello {system}".strip()}]
        reason = "tool_use" if content[-1]["type"] == "tool_use" else "end_turn"
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": content,
                   "stop_reason": reason, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 5}}
        return self.events(message) if body.get("stream") else message

    def events(self, message):
        content, reason = message["content"], message["stop_reason"]
        yield_ = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}, {"type": "ping"}]
        for index, block in enumerate(content):
            if block["type"] == "text":
                start, pieces = {**block, "text": ""}, [{"type": "text_delta", "text": piece + " "} for piece in block["text"].split()]
                pieces[-1]["text"] = pieces[-1]["text"].rstrip()
            else:
                data = json.dumps(block["input"])
                start = {**block, "input": {}}
                pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", data[:6], data[6:])]
            yield_.append({"type": "content_block_start", "index": index, "content_block": start})
            yield_ += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
            yield_.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield_.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}})
        yield_.append({"type": "message_stop"})
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in yield_]


class Gpt(Handler):
    def error(self, kind, message):
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}

    def answer(self, body):
        demand(self.headers["authorization"] == "Bearer upstream-key", "the key")
        demand("anthropic-version" not in self.headers, "a header of Anthropic's")
        demand(self.path == "/v1/chat/completions", f"the path {self.path}")
        foreign = {"system", "stop_sequences", "metadata", "thinking"} & body.keys()
        demand(not foreign, f"fields {foreign}")
        messages, calls, results, system = body["messages"], [], [], ""
        for message in messages:
            role = message["role"]
            demand(role in ("system", "user", "assistant", "tool"), "a role")
            if role == "tool":
                demand(message["tool_call_id"] in calls, "a result without its call")
                calls.remove(message["tool_call_id"])
                results.append(message["content"])
                continue
            demand(not calls, "a call without its result")
            if role == "system":
                system = message["content"]
            if role == "user":
                fail(message["content"] if isinstance(message["content"], str) else "", {})
            for call in message.get("tool_calls", []):
                json.loads(call["function"]["arguments"])
                calls.append(call["id"])
        if results:
            content, calls = "It is " + " and ".join(results), []
        elif tools := body.get("tools"):
            demand(tools[0]["type"] == "function" and "parameters" in tools[0]["function"], "a tool")
            content, calls = "I look.", [
                {"id": f"call_{city}", "type": "function",
                 "function": {"name": tools[0]["function"]["name"], "arguments": json.dumps({"city": city})}}
                for city in ("Rome", "Oslo")
            ]
        else:
            content, calls = f"hello {system}".strip(), []
        reason = "tool_calls" if calls else "stop"
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        if body.get("stream"):
            asked = body.get("stream_options") == {"include_usage": True}
            return self.chunks(body["model"], content, calls, reason, usage if asked else None)
        message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage}

    def chunks(self, model, content, calls, reason, usage):
        deltas = [{"role": "assistant", "content": ""}] + [{"content": piece + " "} for piece in content.split()]
        deltas[-1]["content"] = deltas[-1]["content"].rstrip()
        for index, call in enumerate(calls):
            data = call["function"]["arguments"]
            deltas.append({"tool_calls": [{**call, "index": index, "function": {**call["function"], "arguments": ""}}]})
            deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in (data[:6], data[6:])]
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if usage:
            chunks.append({**head, "choices": [], "usage": usage})
        return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


class Codex(Gpt):
    """A text `fail late` begins an answer, and fails."""

    def answer(self, body):
        demand(self.headers["authorization"] == "Bearer upstream-key", "the key")
        demand(self.path == "/v1/responses", f"the path {self.path}")
        known = {"model", "input", "tools", "tool_choice", "max_output_tokens", "stream", "store", "text", "reasoning"}
        demand(body.keys() <= known, f"fields {body.keys() - known}")
        demand(body["store"] is False, "an answer that nobody asked to store")
        calls, results, system, late = [], [], "", False
        for item in body["input"]:
            kind, content = item["type"], item.get("content")
            if kind == "function_call":
                json.loads(item["arguments"])
                calls.append(item["call_id"])
            elif kind == "function_call_output":
                demand(item["call_id"] in calls, "a result without its call")
                calls.remove(item["call_id"])
                results.append(item["output"])
            else:
                demand(kind == "message" and not calls, f"an item of the type {kind} after {calls}")
                demand(item["role"] in ("system", "user", "assistant"), "a role")
                if item["role"] == "system":
                    system = content
                late = content == "fail late"
                if item["role"] == "user" and isinstance(content, str) and not late:
                    fail(content, {})
        tools = body.get("tools", [])
        demand(all(tool["type"] == "function" and tool["strict"] is False for tool in tools), "a tool")
        thoughts = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
        output = [thoughts] if "reasoning" in body else []
        if results:
            output.append(self.text("It is " + " and ".join(results)))
        elif tools:
            output.append(self.text("I look."))
            output += [
                {"type": "function_call", "id": f"fc_{city}", "call_id": f"call_{city}", "name": tools[0]["name"],
                 "arguments": json.dumps({"city": city}), "status": "completed"}
                for city in ("Rome", "Oslo")
            ]
        elif "format" in body.get("text", {}):
            demand(body["text"]["format"]["schema"] and body["reasoning"] == {"effort": "low"}, "the form of the answer")
            output.append(self.text('{"city": "Rome"}'))
        else:
            output.append(self.text(f"hello {system}".strip()))
        usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
                 "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 14}
        response = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "status": "completed",
                    "error": None, "incomplete_details": None, "output": output, "usage": usage}
        if late:
            response |= {"status": "failed", "error": {"code": "server_error", "message": "as asked for"}}
        return self.events(response) if body.get("stream") else response

    def text(self, text):
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}

    def events(self, response):
        begun = {**response, "status": "in_progress", "error": None, "output": [], "usage": None}
        events = [{"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")]
        for index, item in enumerate(response["output"]):
            at = {"output_index": index, "item_id": item["id"]}
            empty = {"arguments": ""} if item["type"] == "function_call" else {}
            events.append({"type": "response.output_item.added", **at, "item": {**item, **empty}})
            if item["type"] == "function_call":
                kind, data = "function_call_arguments", item["arguments"]
                pieces = [data[:6], data[6:]]
            elif item["type"] == "reasoning":
                kind, data = "reasoning_summary_text", item["summary"][0]["text"]
                pieces, at = [data], {**at, "summary_index": 0}
            else:
                kind, data = "output_text", item["content"][0]["text"]
                pieces, at = [piece + " " for piece in data.split(" ")], {**at, "content_index": 0}
                pieces[-1] = pieces[-1].rstrip()
            events += [{"type": f"response.{kind}.delta", **at, "delta": piece} for piece in pieces]
            events.append({"type": "response.output_item.done", **at, "item": item})
        events.append({"type": f"response.{response['status']}", "response": response})
        numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in numbered]


def main():
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (Claude, Gpt, Codex)]
    print(*(server.server_address[1] for server in servers), flush=True)
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


main()
