-- Argo CD's health of an ImagePipeline: resource.customizations.health.vitrine.io_ImagePipeline in argocd-cm.
local function find(kind)
  for _, c in ipairs((obj.status or {}).conditions or {}) do
    if c.type == kind then
      return c
    end
  end
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the controller has not seen this generation" }
end
local stalled, ready, accepted = find("Stalled"), find("Ready"), find("Accepted")
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready ~= nil and ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready == nil and accepted ~= nil and accepted.reason == "NotSelected" then
  return { status = "Healthy", message = accepted.message }
end
return { status = "Progressing", message = (ready or {}).message or "" }
