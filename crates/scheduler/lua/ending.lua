-- Ends of sessions, and grants that are not delivered in time (P7, P10). What is left behind is settled in parts (P16).

ending = part(function(ending)
  -- Takes back grants that were not delivered to a session, at most `most`. Returns how many items that were.
  local function refund_inbox(id, most)
    local items = inbox:get(id) or {}
    local taken, charges = min(#items, most), {}
    for i = 1, taken do
      if items[i].grant then charges[#charges + 1] = windows.grant(items[i].grant[FIELD_grant_granted]) end
    end
    windows.fetch(charges)
    for i = 1, taken do
      local granted = items[i].grant
      if granted then
        session.release(id, granted[FIELD_grant_granted], granted[FIELD_grant_deployment])
        windows.refund(windows.grant(granted[FIELD_grant_granted]))
      end
    end
    local rest = {}
    for i = taken + 1, #items do rest[#rest + 1] = items[i] end
    if taken > 0 then inbox:put(id, #rest > 0 and rest) end
    return taken
  end

  -- Releases open calls of an ended session, at most `most`. What was not reported was dispatched by its end (P8), or never will be (P9). Returns how many that were.
  local function release_calls(id, ended, most)
    local open, charges = calls.first_of(id, most), {}
    for i, of in ipairs(open) do charges[i] = windows.grant(of.number) end
    windows.fetch(charges)
    for i, of in ipairs(open) do
      windows.assume_dispatched(charges[i], ended)
      session.release(id, of.number, of.deployment)
    end
    return #open
  end

  -- Settles a part of what sessions left behind. Until then a call counts as open, and its charge stays: rather too much than too little.
  function ending.settle_leftovers()
    while state.leftovers[1] do
      local of = state.leftovers[1]
      step.settled = step.settled + refund_inbox(of.session, MAX_SETTLED - step.settled)
      if of.ended >= 0 and step.settled < MAX_SETTLED then step.settled = step.settled + release_calls(of.session, of.ended, MAX_SETTLED - step.settled) end
      if step.settled == MAX_SETTLED then break end
      table.remove(state.leftovers, 1)
    end
    if state.leftovers[1] then step.more = true end
  end

  -- Ends a session: its entries count no more; its undelivered grants are refunded and its open calls released by `settle_leftovers`.
  function ending.finish(id, departed)
    local ended = sessions:get(id)
    if not ended then return end
    sessions:put(id, false)
    answers:put(id, false)
    deployments:put(id, false)
    state.peers_version = state.peers_version + 1
    state.unsettled = true
    state.leftovers[#state.leftovers + 1] = { session = id, ended = state.clock }
    state.orphans = state.orphans + ended.waiting
    if not departed then return end
    group.set_departed(ended.instance, state.clock)
    -- Forgets instances that departed longer ago than anything is remembered.
    for name, known in pairs(instances:all()) do
      if known and known.departed >= 0 and known.departed + rules.memory <= state.clock then instances:put(name, false) end
    end
  end

  -- The sender closes its session. `clean`: nothing is forgotten with it (P11).
  function ending.leave(clean)
    ending.finish(step.id, not clean)
    ending.settle_leftovers()
    local known = group.instance(message.instance)
    if clean then instances:put(message.instance, known.departed >= 0 and { open_session = -1, session = '', departed = known.departed } or false) end
  end

  -- P7: ends the sessions of instances unresponsive for too long.
  function ending.reap()
    local after, dead = group.reap_after(rules.lease), {}
    state.reap_at = NEVER
    for id, owner in pairs(sessions:all()) do
      if owner and id ~= step.id and owner.seen + after < state.lease then
        dead[#dead + 1] = id
      elseif owner then
        state.reap_at = min(state.reap_at, owner.seen + after)
      end
    end
    table.sort(dead)
    for _, id in ipairs(dead) do ending.finish(id, true) end
  end

  -- P10: takes grants back that were not delivered in time, and believes their owner no more.
  function ending.take_back()
    local within, late = session.deliver_within(), {}
    state.take_back_at = NEVER
    for id, items in pairs(inbox:all()) do
      local since, owner = NEVER, sessions:get(id)
      -- Of a session that is believed no more, or has ended, they are taken back already.
      if owner and not owner.unresponsive then
        for _, item in ipairs(items or {}) do since = min(since, item.since or NEVER) end
      end
      if id ~= step.id and since + within < state.lease then
        state.orphans = state.orphans + owner.waiting
        owner.unresponsive, owner.waiting = true, 0
        sessions:put(id, owner)
        late[#late + 1] = id
      elseif since < NEVER then
        state.take_back_at = min(state.take_back_at, since + within)
      end
    end
    table.sort(late)
    for _, id in ipairs(late) do state.leftovers[#state.leftovers + 1] = { session = id, ended = -1 } end
  end
end)
