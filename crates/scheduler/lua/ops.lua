-- Ops: what happened on the sender. The functions of src/transition/ops.rs, in its order; `bound` and `prepare` exist only here: there bounds are cut by src/wire.rs, and
-- nothing has to be read before. `count_ahead` is in lua/execute.lua. An op is an array: its tag, and its fields in the order of src/wire.rs, which the words TAG_, FIELD_
-- and FIELDS_ stand for.

op = part(function(op)

  local function health_of(deployment) return health:get(deployment) or { cools_until = 0, status = 0, fails = 0, successes = 0, since = 0, probe = 0, probed = 0, paced = false } end

  local function cool_until(of, time, status)
    if time > of.cools_until then of.cools_until, of.status = time, status end
  end

  -- What a ticket needs, and what it may use of these limits: `left`, the millionths of each that it may fill; `paced`, pacing holds it.
  function op.demand(limits, entry)
    local priority = entry.priority
    return {
      input = entry.input, output = entry.output, left = priority > limits.reserve_priority and limits.left or WHOLE,
      paced = priority > limits.pace_worse_than,
    }
  end

  -- What fitted last in this step: tickets of one message are often alike.
  local last_limits, last_session, last_priority, last_input, last_output

  local function fits_idle(limits, entry)
    if last_limits == limits and last_session == entry.session and last_priority == entry.priority and last_input == entry.input and last_output == entry.output then
      return true
    end
    local demand = op.demand(limits, entry)
    for _, deployment in ipairs(limits.deployments) do
      if windows.ever_fits(deployment, demand) and session.knows(entry.session, deployment.id) then
        last_limits, last_session, last_priority, last_input, last_output = limits, entry.session, entry.priority, entry.input, entry.output
        return true
      end
    end
    return false
  end

  -- P20 (roll-outs): the rules that apply to a ticket: those in force, or while configurations differ the newest limits, for a ticket that the stricter limits never admit
  -- (A5).
  function op.limits_for(entry) return rules.newest and not fits_idle(rules, entry) and rules.newest or rules end

  -- Whether a ticket could ever fit on any deployment that its instance knows, under the limits that apply to it.
  function op.ever_fits(entry) return fits_idle(op.limits_for(entry), entry) end

  -- Tells the owner of a ticket that has left the queue that it is refused, and why.
  function op.refuse_ticket(entry, code)
    if entry.session == step.id then
      step.refusals[#step.refusals + 1] = { entry.arrival, code }
    else
      session.add_to_inbox(entry.session, { refusal = { entry.arrival, code } })
    end
  end

  local function entry_of(priority, arrival, input, output, tenant, cost, key, tried)
    return {
      priority = priority, arrival = arrival, session = step.id, input = input, output = output, tenant = tenant, cost = cost, key = key, tried = tried,
    }
  end

  op[TAG_join] = function(FIELDS_join)
    local entered = group.draw()
    if step.base == 0 then step.base = entered end
    if arrival == 0 then arrival = entered end
    local entry = entry_of(priority, arrival, input, output, tenant, cost, key, tried)
    if not op.ever_fits(entry) then return op.refuse_ticket(entry, NEVER_FITS) end
    if rules.max_queue_depth > 0 and queue.is_full(rules.max_queue_depth) then
      local displaced = queue.overflow(entry)
      if displaced == queue.REFUSE then return op.refuse_ticket(entry, QUEUE_FULL) end
      if displaced then
        queue.displace(displaced)
        op.refuse_ticket(displaced, QUEUE_FULL)
      end
    end
    queue.enter(entry, start, entered)
  end

  op[TAG_leave] = function(FIELDS_leave)
    queue.leave(entry_of(priority, arrival, input, output, tenant, cost, key, tried))
  end

  op[TAG_sent] = function(FIELDS_sent) windows.set_dispatch_time(granted, state.clock - age) end

  -- `input`, `output`: what the reservation shrinks to.
  op[TAG_done] = function(FIELDS_done)
    if ok then op.count_success(deployment) end
    windows.set_dispatch_time(granted, state.clock)
    session.release(step.id, granted, deployment)
    windows.shrink(granted, input, output)
    local of = (excess_input > 0 or excess_output > 0) and windows.counted(deployment)
    if not of then return end
    if group.paces() then pace.advance(of, 0, excess_input, excess_output) end
    windows.insert(windows.EXCESS, granted, deployment, 0, excess_input, excess_output, state.clock)
  end

  op[TAG_unused] = function(FIELDS_unused)
    local deployment = calls.deployment(step.id, granted)
    if deployment then session.release(step.id, granted, deployment) end
    windows.refund(granted)
  end

  -- A success weighs against failures, from the first failure on.
  function op.count_success(deployment)
    local of = health.known[deployment]
    if of == nil then of = health:get(deployment) end
    if not of then return end
    of.successes = of.successes + 1
    health:put(deployment, (of.cools_until > 0 or state.clock < of.since + FAIL_WINDOW) and of)
  end

  local function is_last_healthy(deployment)
    for _, other in ipairs(rules.deployments) do
      local of = health:get(other.id)
      if other.id ~= deployment and (not of or of.cools_until == 0) then return false end
    end
    return true
  end

  local function cool_down(of, time, status)
    of.fails, of.successes, of.paced = 0, 0, false
    cool_until(of, time, status)
  end

  -- The deployment is probed once a second instead of cooling.
  local function set_pace(of, status)
    local following = of.paced and of.probed + PROBE_PACE or state.clock
    of.paced = true
    cool_until(of, max(following, state.clock), status)
  end

  -- A9 (health): when failures cool a deployment.
  op[TAG_report] = function(FIELDS_report)
    if ok then
      if probe and health:get(deployment) then health:put(deployment, false) end
      return
    end
    local last, of, answered = is_last_healthy(deployment), health_of(deployment), status ~= 0
    health:put(deployment, of)
    -- After the success of another probe, a slow probe is an ordinary call.
    local probing = probe and of.cools_until > 0
    if of.probe == granted then of.probe = 0 end
    if cool >= 0 then return cool_down(of, state.clock + cool, status) end
    if answered and again then
      -- A request that fails on every deployment counts once, and proves nothing as a probe.
      if of.paced then set_pace(of, status) end
      return
    end
    if state.clock >= of.since + FAIL_WINDOW then of.fails, of.successes, of.since = 0, 0, state.clock end
    of.fails = of.fails + 1
    local many, most = of.fails > rules.allowed_fails, not answered or of.fails >= of.successes
    if not probing and not (many and most) then return end
    if answered and last then
      set_pace(of, status)
    else
      cool_down(of, state.clock + (by_id[deployment] and by_id[deployment].cooldown or rules.cooldown), status)
    end
  end

  op[TAG_measured] = function(FIELDS_measured) grant.measured(deployment, took) end

  op[TAG_hold] = function(FIELDS_hold)
    -- P5 (sequence numbers): a number in a snapshot was drawn, so it must not be drawn again.
    state.last = max(state.last, seen(granted))
    -- The call may also be one of the instance's former session that is not settled yet.
    if step.own.former ~= '' then calls.remove(step.own.former, granted, deployment) end
    calls.add(step.id, granted, deployment)
    local of = health:get(deployment)
    if of and probe and of.probe == 0 then
      of.probe, of.probed = granted, state.clock
      health:put(deployment, of)
    end
  end

  op[TAG_charge] = function(FIELDS_charge)
    state.last = max(state.last, seen(granted))
    if not windows.counted(deployment) then return end
    local kind = excess and windows.EXCESS or windows.GRANT
    windows.insert(kind, granted, deployment, requests, input, output, max(state.clock - age, windows.reported_at(kind, granted)))
  end

  op[TAG_cool] = function(FIELDS_cool)
    local of = health_of(deployment)
    -- An instance that learned of a cooldown from a reply does not know its status.
    if of.cools_until > state.clock then
      if status == 0 then status = of.status end
      if of.status == 0 then of.status = status end
    end
    cool_until(of, state.clock + left, status)
    health:put(deployment, of)
  end

  local function add_rank(ahead) step.ranks[#step.ranks + 1] = ahead or NONE end

  op[TAG_move] = function(FIELDS_move)
    local entry = entry_of(priority, arrival, input, output, tenant, cost, key, tried)
    local moved = entry_of(to, arrival, input, output, tenant, cost, key, tried)
    add_rank(queue.move(entry, moved) and queue.ahead_of(moved))
  end

  op[TAG_rank] = function(FIELDS_rank)
    if arrival == 0 then return add_rank(max(queue.ahead_of_new(priority, tenant) - state.orphans, 0)) end
    add_rank(queue.ahead_of(entry_of(priority, arrival, input, output, tenant, cost, key, tried)))
  end

  op[TAG_look] = function(FIELDS_look) step.look = step.look or { from, min(most, MAX_ROWS) } end

  -- They are in force since before the other ops.
  op[TAG_override] = function() end
  op[TAG_overrides] = function() end

  op[TAG_close_session] = function() end

  -- By tag, what cuts an op's fields to their bounds.
  local BOUNDS = OP_BOUNDS

  -- Cuts the fields of ops to their bounds. Returns whether they change the overrides.
  function op.bound(ops)
    local overrides = false
    for i = 1, #ops do
      local one = ops[i]
      local tag = one[1]
      BOUNDS[tag](one)
      overrides = overrides or tag == TAG_override or tag == TAG_overrides
    end
    return overrides
  end

  -- Reads what the ops need, together.
  function op.prepare(ops)
    local charges, entries = {}, {}
    local function add(kind, number)
      if windows.is_kept(kind, number) then return end
      local n = #charges
      charges[n + 1], charges[n + 2] = kind, number
    end
    for i = 1, #ops do
      local one = ops[i]
      local tag = one[1]
      if tag == TAG_join and rules.fair then
        entries[#entries + 1] = { priority = one[FIELD_join_priority], tenant = one[FIELD_join_tenant] }
      elseif tag == TAG_leave and rules.fair then
        entries[#entries + 1] = { priority = one[FIELD_leave_priority], tenant = one[FIELD_leave_tenant] }
      elseif tag == TAG_sent then
        add(windows.GRANT, one[FIELD_sent_granted])
      elseif tag == TAG_unused then
        add(windows.GRANT, one[FIELD_unused_granted])
      elseif tag == TAG_done then
        local granted = one[FIELD_done_granted]
        calls.want(step.id, granted, one[FIELD_done_deployment])
        add(windows.GRANT, granted)
        if one[FIELD_done_excess_input] > 0 or one[FIELD_done_excess_output] > 0 then add(windows.EXCESS, granted) end
      elseif tag == TAG_hold then
        local granted, deployment = one[FIELD_hold_granted], one[FIELD_hold_deployment]
        calls.want(step.id, granted, deployment)
        if step.own.former ~= '' then calls.want(step.own.former, granted, deployment) end
      elseif tag == TAG_charge then
        add(one[FIELD_charge_excess] and windows.EXCESS or windows.GRANT, one[FIELD_charge_granted])
      end
    end
    if not getmetatable(calls) then calls.fetch() end
    if charges[1] then windows.fetch(charges) end
    if rules.fair then fair.fetch(entries) end
  end

  function op.apply_all(ops)
    for i = 1, #ops do
      local one = ops[i]
      op[one[1]](unpack(one))
    end
    queue.write_pending()
  end

  return function() last_limits = nil end
end)
