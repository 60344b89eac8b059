// The Vercel AI SDK: streamed text, structured output, an agent with a tool, embeddings, errors.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embed, generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, scriptedModel, thinkingModel, embeddingModel] = process.argv.slice(2);
const NAME = "smollm2-135m-instruct";
const compatible = createOpenAICompatible({
  name: "inflight",
  baseURL,
  apiKey: "any-key",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL, apiKey: "any-key" });
const settings = { temperature: 0, maxOutputTokens: 64, maxRetries: 0 };

const City = z.object({ name: z.enum(["Paris", "London"]), is_capital: z.boolean() });
const get_weather = tool({
  description: "Tell the weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

async function text(model) {
  const wanted = { ...settings, model, prompt: "What is the capital of France?" };
  const plain = await generateText(wanted);
  const streaming = streamText(wanted);
  const pieces = [];
  for await (const piece of streaming.textStream) pieces.push(piece);
  return {
    is_whole: pieces.join("") === plain.text,
    num_pieces: pieces.length,
    finish_reasons: [plain.finishReason, await streaming.finishReason],
    num_output_tokens: [plain.usage.outputTokens, (await streaming.usage).outputTokens],
  };
}

async function structured(model) {
  const output = Output.object({ schema: City });
  const prompt = "What is the capital of France?";
  const plain = await generateText({ ...settings, model, prompt, output });
  const streaming = streamText({ ...settings, model, prompt, output });
  return [plain.output, await streaming.output].map((city) => City.safeParse(city).success);
}

async function forced(model) {
  const prompt = "What is the weather in Paris?";
  const tools = { get_weather: { ...get_weather, execute: undefined } };
  const answer = await generateText({ ...settings, model, prompt, tools, toolChoice: "required" });
  const calls = answer.toolCalls.filter((call) => typeof call.input.city === "string");
  return [...new Set(calls.map((call) => call.toolName))];
}

async function agent(model) {
  const streaming = streamText({
    ...settings,
    model,
    tools: { get_weather },
    stopWhen: isStepCount(5),
    prompt: "What is the weather in Paris?",
  });
  const steps = await streaming.steps;
  return {
    results: steps.flatMap((step) => step.toolResults.map((result) => result.output)),
    finish_reasons: steps.map((step) => step.finishReason),
    text: await streaming.text,
  };
}

async function thoughts(model) {
  const wanted = { ...settings, model, prompt: "What is the capital of France?" };
  const plain = await generateText(wanted);
  const streaming = streamText(wanted);
  return [
    [plain.reasoningText, plain.text],
    [await streaming.reasoningText, await streaming.text],
  ];
}

async function broken(model) {
  const errors = [];
  const streaming = streamText({
    ...settings,
    model,
    prompt: "Please break off.",
    onError: ({ error }) => errors.push(error.message ?? error),
  });
  let text = "";
  for await (const piece of streaming.textStream) text += piece;
  return { text, num_errors: errors.length };
}

async function refused(model) {
  try {
    await generateText({ ...settings, model, prompt: "Hello", topP: 2 });
  } catch (error) {
    return { is: APICallError.isInstance(error), status: error.statusCode };
  }
}

const found = {};
const apis = { compatible, chat: openai.chat, responses: openai.responses };
for (const [name, model] of Object.entries(apis)) {
  found[name] = {
    text: await text(model(NAME)),
    structured: await structured(model(NAME)),
    forced: await forced(model(NAME)),
    agent: await agent(model(scriptedModel)),
    broken: await broken(model(scriptedModel)),
    refused: await refused(model(NAME)),
  };
}
found.thoughts = await thoughts(compatible(thinkingModel));
const { embedding } = await embed({
  model: compatible.embeddingModel(embeddingModel),
  value: "one",
});
found.embedding_size = embedding.length;
process.stdout.write(JSON.stringify(found));
