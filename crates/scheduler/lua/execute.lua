-- The step itself: load, execute, answer, save, wake. The functions of src/transition/mod.rs that concern replies, in its order. `reply`, `raw_now` and
-- `replication_id` exist only here: there they are a struct and arguments.

-- P15 (wakes): the head's owner is woken when the head is another ticket, or when `next_free` is earlier than what the owner last learned. An owner whose time is too
-- early steps too early, and learns the right time then.
local function notify_head_owner(entry, at, mine)
  local notice = state.head_notice
  local function or_never(time) return time < 0 and NEVER or time end
  local news = notice[1] ~= entry.arrival or notice[2] ~= entry.session or or_never(at or -1) < or_never(notice[3])
  if mine or news then state.head_notice = { entry.arrival, entry.session, at or -1 } end
  local owner = sessions:get(entry.session)
  if owner and news and not mine then group.wake(owner) end
end

-- The instances with a session and those that departed lately: reported when they have changed.
local function peers_and_departed()
  if step.own.peers_reported == state.peers_version then return {}, {} end
  step.own.peers_reported = state.peers_version
  local names, departed = {}, {}
  for _, owner in pairs(sessions:all()) do
    if owner then names[owner.instance] = true end
  end
  for name in pairs(state.recovery and state.recovery.expected or {}) do names[name] = true end
  for name, known in pairs(instances:all()) do
    if known and known.departed >= 0 then departed[name] = true end
  end
  departed = store.sorted(departed)
  for i, name in ipairs(departed) do departed[i] = { name, max(state.clock - group.instance(name).departed, 0) } end
  return store.sorted(names), departed
end

-- For each new ticket, how many tickets were surely ahead of it when the step began; 0 for a ticket that enters again.
local function count_ahead()
  local leaving, at_least, ahead = 0, {}, {}
  local by_tags = rules.fair and rules.aging == 0
  for _, of in ipairs(message.ops) do
    if of[1] == TAG_leave then leaving = leaving + 1 end
  end
  for _, of in ipairs(message.ops) do
    if of[1] == TAG_join then
      local priority, before = of[FIELD_join_priority], 0
      if of[FIELD_join_arrival] == 0 then
        -- Counted once for tickets that are alike.
        local tenant = of[FIELD_join_tenant]
        local alike = by_tags and format('%d %.0f', priority, tenant) or priority
        at_least[alike] = at_least[alike] or queue.ahead_of_new(priority, tenant)
        before = max(at_least[alike] - state.orphans - leaving, 0)
      end
      ahead[#ahead + 1] = before
    end
  end
  return ahead
end

local function answer(ahead)
  local entry = queue.first()
  local mine, at, reasons = entry ~= nil and entry.session == step.id, nil, 0
  if state.recovery then
    at = state.clock + max(recovery.next() - state.lease, 0)
  elseif entry then
    at, reasons = grant.next_free(entry), grant.reasons(entry)
    notify_head_owner(entry, at, mine)
  end
  local used, one = {}, #rules.configurations == 1
  for i, id in ipairs(one and group.deployments() or deployments:get(step.id) or {}) do used[i] = by_id[id] and grant.used(by_id[id]) or { { 0, 0, 0 }, 0, 0, 0 } end
  local peers, departed = peers_and_departed()
  local session, base, seen, highest_finish, grants, refusals = tonumber(step.id), step.base, state.last, state.highest_finish, step.grants, step.refusals
  local next_free, recovering, more, depth = at and max(at - state.clock, 0) or -1, state.recovery ~= nil, step.more, group.depth()
  local rules_version, memory, heartbeat, configurations = configurations.version(step.own.configuration), rules.memory, configurations.heartbeat(), #rules.configurations
  local ranks, overrides = step.ranks, state.overrides and operators.unreported_overrides() or {}
  local views = step.look and { operators.view(unpack(step.look)) } or {}
  return pack({ FIELDS_answer })
end

-- The answer is stored packed, so a reply is joined from packed parts behind the mark of an array.
local function reply(verdict, answer)
  local epoch, recovered = pack(state.epoch), pack(step.recovered)
  verdict, answer = pack(verdict), answer and '\145' .. answer or '\144'
  local fields = { FIELDS_reply }
  return string.char(0x90 + #fields) .. table.concat(fields)
end

local function execute(replication)
  state.last = max(state.last, message.seen)
  state.highest_finish = max(state.highest_finish, message.highest_finish)
  local verdict, packed = session.admit(replication)
  if verdict then return reply(verdict, packed) end
  if #message.ops == 0 and not message.open_session[1] and group.lacks_a_key() then
    -- What is left may contradict what is missing; snapshots report the charges.
    windows.forget_all()
    recovery.begin(replication)
    return reply(SESSION_INVALID)
  end
  sessions:put(step.id, step.own)
  if op.bound(message.ops) then operators.receive_overrides(message.ops) end
  if state.unsettled and configurations.settle() then
    -- P18 (pacing, reserve, aging): the queue order has changed, so all tickets join again.
    recovery.begin(replication)
    return reply(SESSION_INVALID)
  end
  local ids = group.deployments()
  health:fetch(ids)
  totals:fetch(ids)
  if group.paces() then due:fetch(ids) end
  if state.recovery or state.conservative then recovery.receive_report() end
  if state.size == 0 then state.busy_since = state.last end
  op.prepare(message.ops)
  local ahead = count_ahead()
  op.apply_all(message.ops)
  if state.lease > state.reap_at then ending.reap() end
  if state.lease > state.revoke_at then ending.revoke_undelivered() end
  if state.leftovers[1] then ending.settle_leftovers() end
  if state.recount then windows.recount() end
  if state.recovery then recovery.settle() end
  session.deliver_inbox()
  if not state.recovery then
    windows.expire()
    if state.idle > 0 then fair.forget() end
    grant.grant_heads()
    queue.sweep()
  end
  packed = answer(ahead)
  answers:put(step.id, packed)
  local last = message.ops[#message.ops]
  if last and last[1] == TAG_close_session then ending.close_session(last[FIELD_close_session_clean]) end
  return reply(DONE, packed)
end

-- The server's time, read once: before Redis 7.2 it advances while a script runs.
local function raw_now()
  if arguments[5] then return tonumber(arguments[5]) end
  local time = call('TIME')
  return time[1] * 1000000 + time[2]
end

-- In a cluster a channel belongs to the group's slot. Before Redis 7 there are only ordinary channels.
local function publish(channel, name)
  local published = channel:find('{', 1, true) and redis.pcall('SPUBLISH', channel, name)
  if type(published) ~= 'number' then redis.pcall('PUBLISH', channel, name) end
end

-- One call: KEYS and ARGV.
local function run(given_keys, given_arguments)
  keys, arguments = given_keys, given_arguments
  name_keys(keys)
  local known, finish
  message.instance, message.epoch, message.session, message.batch, message.open_session, message.complete, known, finish, message.ops = unpacked(arguments[1])
  message.seen, message.highest_finish = seen(known), number(finish)
  step = {
    grants = {}, refusals = {}, ranks = {}, wakes = {}, id = '', base = 0, elapsed = 0, dropped = 0, settled = 0, more = false, recovered = false,
    random = tonumber(arguments[2]) % (MODULUS - 1) + 1,
  }
  for i = 1, #resets do resets[i]() end
  local replication = group.load(raw_now())
  local result = { execute(replication) }
  group.save()
  if next(step.wakes) == nil then return result end
  for _, name in ipairs(store.sorted(step.wakes)) do
    result[#result + 1] = name
    -- A user without the right to publish must not stop the script here.
    if arguments[3] ~= '' then publish(arguments[3] .. name, arguments[4]) end
  end
  return result
end
