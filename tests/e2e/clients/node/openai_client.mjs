// openai for Node: plain and streamed answers, parsed answers, a tool runner, errors.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, scriptedModel] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any-key", maxRetries: 0 });

const City = z.object({ name: z.enum(["Paris", "London"]), is_capital: z.boolean() });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Tell the weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    parse: JSON.parse,
    function: ({ city }) => `sunny in ${city}`,
  },
};
const ask = (content, options = {}) => ({
  model: "smollm2-135m-instruct",
  messages: [{ role: "user", content }],
  temperature: 0,
  max_tokens: 48,
  ...options,
});

async function streamed() {
  const wanted = ask("What is the capital of France?", { stream_options: { include_usage: true } });
  const stream = client.chat.completions.stream(wanted);
  let numEvents = 0;
  stream.on("content", () => numEvents++);
  const final = await stream.finalChatCompletion();
  return {
    text: final.choices[0].message.content,
    num_events: numEvents,
    usage: await stream.totalUsage(),
  };
}

async function agent(stream) {
  const wanted = ask("What is the weather in Paris?", { model: scriptedModel, tools: [weather] });
  const runner = client.chat.completions.runTools({ ...wanted, stream });
  return {
    text: await runner.finalContent(),
    results: runner.messages.filter((m) => m.role === "tool").map((m) => m.content),
  };
}

async function broken() {
  const wanted = ask("Please break off.", { model: scriptedModel });
  let text = "";
  try {
    const stream = await client.chat.completions.create({ ...wanted, stream: true });
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  } catch (error) {
    return { text, is: error instanceof OpenAI.APIError };
  }
}

async function refused() {
  try {
    await client.chat.completions.create(ask("Hello", { top_p: 2 }));
  } catch (error) {
    return { is: error instanceof OpenAI.BadRequestError, param: error.param };
  }
}

const plain = await client.chat.completions.create(ask("What is the capital of France?"));
const format = zodResponseFormat(City, "city");
const parsed = await client.chat.completions.parse(
  ask("The capital of France?", { response_format: format, max_tokens: 64 }),
);
const found = {
  plain: { text: plain.choices[0].message.content, usage: plain.usage },
  stream: await streamed(),
  is_city: City.safeParse(parsed.choices[0].message.parsed).success,
  agents: [await agent(false), await agent(true)],
  broken: await broken(),
  refused: await refused(),
};
process.stdout.write(JSON.stringify(found));
