// OpenAI's Node SDK against a real gateway; test_node.py runs this file, and says where the gateway is.
import assert from "node:assert/strict";
import test from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: "none", maxRetries: 0 });
const model = "gpt-3.5-turbo";
const messages = [{ role: "user", content: "Say seven." }];
const said = "The model says: Say seven.";
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

test("a question is answered", async () => {
  const answer = await client.chat.completions.create({ model, messages });
  assert.equal(answer.choices[0].message.content, said);
  assert.equal(answer.choices[0].finish_reason, "stop");
});

test("a stream brings the text in pieces, and its usage when asked", async () => {
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), said);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
});

test("a streamed tool call is put together", async () => {
  const stream = client.chat.completions.stream({
    model,
    messages: [{ role: "user", content: "get_weather for Paris, please" }],
    tools: [{ type: "function", function: { name: "get_weather", parameters } }],
  });
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.equal(choice.finish_reason, "tool_calls");
  assert.deepEqual(Object.keys(JSON.parse(choice.message.tool_calls[0].function.arguments)), ["city"]);
});

test("a tool that runs by itself", async () => {
  const runner = client.chat.completions.runTools({
    model,
    messages: [{ role: "user", content: "get_weather for Paris, please" }],
    tools: [
      {
        type: "function",
        function: { name: "get_weather", parameters, parse: JSON.parse, function: async () => "21 degrees" },
      },
    ],
  });
  assert.match(await runner.finalContent(), /21 degrees/);
});

test("responses go on by the earlier one, streamed too", async () => {
  const first = await client.responses.create({ model, input: "One?" });
  assert.equal(first.output_text, "The model says: One?");
  const stream = client.responses.stream({ model, input: "Say seven.", previous_response_id: first.id });
  assert.equal((await stream.finalResponse()).output_text, said);
});

test("an unknown model is not found", async () => {
  await assert.rejects(client.chat.completions.create({ model: "gpt-9", messages }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
});

test("the models are listed", async () => {
  const ids = [];
  for await (const found of client.models.list()) ids.push(found.id);
  assert.ok(ids.includes(model));
});

test("cut: a stream that is cut throws after its text", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  }, OpenAI.APIError);
  assert.ok(text && said.startsWith(text));
});

test("endless: who leaves a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const chunk of stream) {
    assert.equal(chunk.choices[0].finish_reason, null);
    break;
  }
});
