// Vercel's AI SDK against a real gateway; test_node.py runs this file, and says where the gateway is.
import assert from "node:assert/strict";
import test from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const flowgpt = createOpenAICompatible({
  name: "flowgpt",
  baseURL: process.env.OPENAI_BASE_URL,
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = flowgpt("gpt-3.5-turbo");
const prompt = "Say seven.";
const said = "The model says: Say seven.";
const tools = {
  get_weather: tool({ inputSchema: z.object({ city: z.string() }), execute: async () => "21 degrees" }),
};

test("a question is answered", async () => {
  const answer = await generateText({ model, prompt });
  assert.equal(answer.text, said);
  assert.equal(answer.finishReason, "stop");
  assert.ok(answer.usage.totalTokens > 0);
});

test("a stream brings the text in pieces", async () => {
  const answer = streamText({ model, prompt });
  const texts = [];
  for await (const text of answer.textStream) texts.push(text);
  assert.equal(texts.join(""), said);
  assert.ok(texts.length > 2);
  assert.equal(await answer.finishReason, "stop");
  assert.ok((await answer.usage).totalTokens > 0);
});

test("a tool is called and its result used", async () => {
  const answer = await generateText({ model, tools, prompt: "get_weather for Paris", stopWhen: stepCountIs(3) });
  assert.equal(answer.steps.length, 2);
  assert.match(answer.text, /21 degrees/);
});

test("a tool is called in a stream", async () => {
  const answer = streamText({ model, tools, prompt: "get_weather for Paris", stopWhen: stepCountIs(3) });
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  assert.match(text, /21 degrees/);
});

test("an answer is an object of a schema", async () => {
  const output = Output.object({ schema: z.object({ city: z.string(), degrees: z.number() }) });
  const answer = await generateText({ model, output, prompt: "Paris" });
  assert.deepEqual(Object.keys(answer.output), ["city", "degrees"]);
});

test("an unknown model is an error that is not retried", async () => {
  await assert.rejects(generateText({ model: flowgpt("gpt-9"), prompt }), (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.equal(error.isRetryable, false);
    return true;
  });
});

test("cut: a stream that is cut tells so after its text", async () => {
  const errors = [];
  const answer = streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => errors.push(error) });
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  assert.ok(text && said.startsWith(text) && text !== said);
  assert.deepEqual(errors.map((error) => error.code.split("_")[0]), ["stream"]);
});

test("endless: who leaves a stream", async () => {
  const leaving = new AbortController();
  const answer = streamText({ model, prompt, abortSignal: leaving.signal });
  for await (const piece of answer.textStream) {
    assert.ok(piece);
    leaving.abort();
    break;
  }
});
